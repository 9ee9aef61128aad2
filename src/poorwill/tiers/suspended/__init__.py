"""The tier `suspended`: a virtual machine's memory on disk, by QEMU."""
