"""The ways of parking a replica, a folder each. One contract test suite runs over all of them."""
