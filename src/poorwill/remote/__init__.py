"""What is not on this machine: machines rented from clouds, the model hub, the prices of hosted APIs."""
