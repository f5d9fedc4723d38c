"""The platform's own listings: kept here, as operators tell them, or asked of the platform itself."""
