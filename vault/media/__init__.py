"""Media formats: recognising stored audio, and making it playable."""
