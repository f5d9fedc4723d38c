"""Invents locations, resources and rates as unlike each other as real ones: pure functions of a `Random`.

The shapes are ours, after what management systems really send: one thing said in several ways,
members missing, long and foreign texts.
"""

from random import Random
from typing import Any

JsonObject = dict[str, Any]

CITIES = [
    ("London", "GB", "GMT Standard Time", "GBP"),
    ("New York", "US", "Eastern Standard Time", "USD"),
    ("Berlin", "DE", "Europe/Berlin", "EUR"),
    ("Tel Aviv", "IL", "Israel Standard Time", "ILS"),
    ("São Paulo", "BR", "E. South America Standard Time", "BRL"),
    ("Sydney", "AU", "AUS Eastern Standard Time", "AUD"),
    ("Kyiv", "UA", "FLE Standard Time", "UAH"),
    ("東京", "JP", "Tokyo Standard Time", "JPY"),
]
TYPES = ["meeting-room", "office", "hot-desk", "dedicated-desk", "fixed-desk", "floor"]
ROOMS = ["Ada", "Grace", "Alan", "Katherine", "Linus", "Barbara", "Edsger", "Radia", "Niklaus", "Hedy"]
PERIODS = [("hour", 12), ("half-day", 40), ("day", 70), ("week", 300), ("month", 950)]
TEXTS = [
    "Bright room with a view.",
    "<p>Bright room with a <strong>view</strong> &amp; a fridge.</p><script>alert('x')</script>",
    "Coffee ☕, dogs 🐕‍🦺 and plants 🪴 welcome",
    "מרחב עבודה שקט במרכז העיר, כולל קפה",
    "مساحة عمل هادئة في وسط المدينة",
    "",
]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def location(rng: Random, ident: int, number: int) -> JsonObject:
    """A location's members as `GET /v1/locations/{ID}` names them; its `ID` is a string."""
    city, country, zone, currency = CITIES[number % len(CITIES)]
    return {
        "ID": str(ident),
        "Name": f"Demo Workspace - {city}" + (f" {number // len(CITIES) + 1}" if number >= len(CITIES) else ""),
        "Description": text(rng),
        "TimeZone": zone,
        "currency": currency,
        "syncOpenStatus": rng.choice([True, False, "1"]),
        "address": address(rng, city, country),
        "hoursOfOperation": opening_hours(rng),
    }


def resource(rng: Random, ident: int, number: int, location_id: str) -> JsonObject:
    """A room; its own id is a number, or it is known by `syncarooId` alone; `locationId` may be either."""
    kind = TYPES[number % len(TYPES)]
    name = ROOMS[number % len(ROOMS)]
    return {
        "syncarooId" if number % 4 == 3 else "ID": ident,
        "locationId": rng.choice([location_id, int(location_id)]),
        "name": f"{name} {kind.replace('-', ' ').title()} {number + 1}",
        "description": text(rng),
        "type": kind,
        "units": rng.randint(1, 20) if kind.endswith("desk") else 1,
        "capacity": None if kind == "floor" else rng.choice([2, 4, 6, 8, 10, "12"]),
        "Usage details": rng.choice(["", "Shoes off, please.", None]),
        "size": rng.choice([95, 120.5, "300"]),
        "bookable": kind != "floor",
        "availableFrom": rng.choice([None, "2026-03-29", "2026-10-25T02:30:00"]),
    }


def rate(rng: Random, ident: int, number: int) -> JsonObject:
    """A price; null is on request, no `currency` means the location's."""
    period, base = PERIODS[number % len(PERIODS)]
    made: JsonObject = {"id": ident, "name": f"Per {period}", "period": period, "price": price(rng, base)}
    if rng.random() < 0.5:
        made["currency"] = rng.choice(["GBP", "EUR", "USD"])
    return made


def price(rng: Random, base: int) -> str | float | int | None:
    """A price in whichever form the management system at the other end happened to use."""
    amount = base + rng.randint(0, base)
    forms: list[str | float | int | None] = [f"{amount}.00", amount, amount + 0.5, None]
    return rng.choices(forms, weights=[4, 4, 2, 1])[0]


def text(rng: Random) -> str:
    """A description: plain, HTML, emoji, right to left, empty, and now and then 20 kB."""
    return "Long story ✍️ <br>\n" * 1000 if rng.random() < 0.08 else rng.choice(TEXTS)


def address(rng: Random, city: str, country: str) -> JsonObject | list[str] | str:
    street = f"{rng.randint(1, 200)} Example Street"
    forms: list[JsonObject | list[str] | str] = [
        {"street": street, "city": city, "country": country, "geo": {"lat": 51.5, "lng": -0.12}},
        [street, city, country],
        f"{street}, {city}, {country}",
    ]
    return rng.choice(forms)


def opening_hours(rng: Random) -> JsonObject | list[JsonObject]:
    """A map by day or a list of days, in minutes from midnight or as "08:30"."""
    minutes = rng.random() < 0.5
    opens, closes = (510, 1080) if minutes else ("08:30", "18:00")
    if rng.random() < 0.5:
        return {day: {"open": opens, "close": closes} for day in DAYS[:5]}
    return [{"day": number, "from": opens, "to": closes} for number, _ in enumerate(DAYS[:5], start=1)]
