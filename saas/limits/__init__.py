"""How often a user, a key or an address may ask."""
