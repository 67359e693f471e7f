"""What runs came to: summaries, pictures, pages, and tables over finished runs."""
