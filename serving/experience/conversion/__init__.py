"""Turns the complete segments of a node's journal into Parquet files, and checks each decision once more on the way."""
