"""The default constructions on five real sets: measured tables, and what follows from them."""
