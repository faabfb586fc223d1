"""Bridges to programs of other projects; each imports what it is a bridge to only when used."""
