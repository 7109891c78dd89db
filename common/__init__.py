"""What the four problems share."""
