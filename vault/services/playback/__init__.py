"""Playing recordings, and showing what is known of them."""
