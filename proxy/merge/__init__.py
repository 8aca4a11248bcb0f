"""What a virtual name consists of, and what is answered for it. Pure: values in, values out."""
