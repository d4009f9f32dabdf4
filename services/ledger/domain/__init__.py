"""What money is here, and every decision that needs no database."""
