"""What this container may use: memory, cores, descriptors, threads; and the kernel's word when it runs short."""
