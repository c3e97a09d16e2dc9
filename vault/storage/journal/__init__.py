"""The journal: what makes a piece durable before it is acknowledged."""
