// Keeps the console's front page up to date: events as they happen, and how everything stands.
// Without script the page reloads itself instead. Rows and parts are drawn where the page is: nothing is made up here.
"use strict";

(() => {
  const events = document.querySelector("[data-live]");
  if (!events) return;
  const [log, empty, said, live, pause, standing] = ["log", "empty", "said", "live", "pause", "standing"].map((id) => document.getElementById(id));
  const ROWS = 200;
  const SAID_EVERY = 5000;
  const AGAIN_AFTER = 5000;
  const shown = new Set([...log.children].map((row) => row.dataset.id));
  let storeWasAway = events.dataset.store === "away";
  let held = null; // rows that wait while paused
  let untold = 0;
  let last = events.dataset.after;
  let source;

  const tell = (text, mood) => {
    live.hidden = false;
    if (live.textContent !== text) live.textContent = text;
    live.dataset.mood = mood;
  };

  const drawn = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  };

  // By position: what was written late comes where it belongs.
  const put = (row) => {
    const position = Number(row.dataset.position);
    const before = [...log.children].find((other) => Number(other.dataset.position) < position);
    log.insertBefore(row, before ?? null);
    while (log.children.length > ROWS) log.lastElementChild.remove();
    empty.hidden = true;
  };

  const label = () => {
    pause.textContent = held ? `Go on${held.length ? ` (${held.length} waiting)` : ""}` : "Pause";
    pause.setAttribute("aria-pressed", String(Boolean(held)));
  };

  const happened = ({ data, lastEventId }) => {
    const { id, html } = JSON.parse(data);
    if (lastEventId) last = lastEventId;
    if (shown.has(id)) return;
    shown.add(id);
    if (shown.size > 10000) shown.delete(shown.values().next().value);
    const row = drawn(html).firstElementChild;
    if (held) {
      held.push(row);
      while (held.length > ROWS) held.shift();
      return label();
    }
    row.classList.add("new");
    put(row);
    untold += 1;
  };

  // A part that somebody is in with the keyboard stays as it is; so does what has not changed.
  const replace = (fresh) => {
    const old = document.getElementById(fresh.id);
    if (!old) return standing.append(fresh);
    if (old.outerHTML === fresh.outerHTML || old.contains(document.activeElement) || old.querySelector("details[open]")) return;
    old.replaceWith(fresh);
  };

  const stands = ({ data }) => {
    const { html, store } = JSON.parse(data);
    if (store && storeWasAway) return location.reload(); // the page began without its events
    tell(store ? "Live" : "The store is away", store ? "good" : "bad");
    const fresh = [...drawn(html).children];
    const ids = new Set(fresh.map((part) => part.id));
    fresh.forEach(replace);
    if (store) [...standing.children].filter((part) => !ids.has(part.id)).forEach((part) => part.remove());
  };

  const words = (seconds) => {
    const [most, unit] = seconds >= 172800 ? [86400, "days"] : seconds >= 7200 ? [3600, "h"] : seconds >= 120 ? [60, "min"] : [1, "s"];
    return `${Math.floor(seconds / most)} ${unit}`;
  };

  // Countdowns go on between two messages.
  const count = () => document.querySelectorAll("[data-seconds]").forEach((element) => {
    const seconds = Number(element.dataset.seconds) - 1;
    element.dataset.seconds = String(seconds);
    if (seconds >= 0) element.textContent = `in ${words(seconds)}`;
  });

  const connect = () => {
    const filters = new URLSearchParams(location.search);
    const asked = new URLSearchParams({ after: last });
    for (const name of ["connection", "collection"]) if (filters.get(name)) asked.set(name, filters.get(name));
    source = new EventSource(`${events.dataset.live}?${asked}`);
    source.addEventListener("event", happened);
    source.addEventListener("standing", stands);
    source.addEventListener("open", () => tell("Live", "good"));
    source.addEventListener("error", () => {
      tell("Connecting again …", "slow");
      if (source.readyState === EventSource.CLOSED) setTimeout(refused, AGAIN_AFTER);
    });
  };

  // Signed out meanwhile: the page says it better. Away: it is asked again.
  const refused = async () => {
    try {
      const page = await fetch(location.href, { cache: "no-store" });
      if (page.ok && (await page.text()).includes('type="password"')) return location.reload();
    } catch { /* it is away */ }
    connect();
  };

  pause.hidden = false;
  label();
  pause.addEventListener("click", () => {
    if (held) {
      held.forEach(put);
      untold += held.length;
    }
    held = held ? null : [];
    label();
  });
  setInterval(count, 1000);
  setInterval(() => {
    if (untold) said.textContent = `${untold} new event${untold === 1 ? "" : "s"}`;
    untold = 0;
  }, SAID_EVERY);
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  tell("Connecting …", "slow");
  connect();
})();
