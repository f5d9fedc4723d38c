"""A webhook as the guide has it, for peers that check it with pydantic."""

from pydantic import BaseModel


class MetaData(BaseModel):
    """Of a webhook."""

    resourceId: str | None = None
    attributeType: str | None = None
    resourceType: str | None = None
    apiUrl: str


class Webhook(BaseModel):
    """All of it."""

    connectionId: int
    webhookType: str
    locationId: str | None = None
    metaData: MetaData
    hash: str
