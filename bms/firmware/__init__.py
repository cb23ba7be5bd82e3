"""From kernels to what runs elsewhere: libraries with a C interface, and the header that describes it."""
