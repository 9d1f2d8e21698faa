"""How long a user waits: this core and other tools, doing the same work on the same SSH hosts."""
