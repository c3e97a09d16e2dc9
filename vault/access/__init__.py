"""Who may do what, who decides together with whom, and how much of a resource each may have: pure rules."""
