"""Publication of a run: its weights with a model card, on the Hugging Face hub."""
