"""Messages of modules: taken in, made durable, kept until the hub has them."""
