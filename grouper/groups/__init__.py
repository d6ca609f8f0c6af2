"""Groups: runners made of members."""
