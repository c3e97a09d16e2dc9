"""The journal: pieces are durable in it before they are acknowledged."""
