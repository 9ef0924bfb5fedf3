"""What the flow of glow.py is made of: its filters, its condition, its groups."""
