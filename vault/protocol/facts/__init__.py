"""What is said of a call, in whichever form: parties, metadata, SIPREC."""
