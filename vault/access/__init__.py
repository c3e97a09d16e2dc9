"""Pure rules: what each role may do, which two people decide together, and each tenant's share of a resource."""
