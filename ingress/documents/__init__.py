"""What tells programs how to speak with us: JSON Schemas, AsyncAPI and OpenAPI, generated, public, without secrets."""
