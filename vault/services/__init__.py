"""What the vault does: one folder for each subject."""
