"""One file per way of parking a replica. One contract test suite runs over all of them."""
