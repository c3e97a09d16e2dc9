"""Everything that ends a recording: sweeps, erasures, and what stops or permits them."""
