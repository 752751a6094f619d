"""Programs that show the product at work; nothing imports them."""
