"""What is not on this machine: machines rented from clouds, the model hub, the prices of hosted APIs.

Here is also how a rented machine is parked and woken (`clouds.driver`, the tier `hibernated`).
"""
