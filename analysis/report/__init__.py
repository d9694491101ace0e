"""What a comparison showed, in words."""
