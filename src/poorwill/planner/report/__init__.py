"""What a plan says: the verdict, the report, the pictures."""
