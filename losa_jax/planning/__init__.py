"""Memory and time of a run on devices that are not here."""
