"""The tier `cold`: nothing but weights on disk."""
