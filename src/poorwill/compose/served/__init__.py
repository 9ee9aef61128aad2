"""What a served fleet owns, how it follows its file, and how it finds engines that hang."""
