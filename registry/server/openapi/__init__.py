"""The OpenAPI document, made from the operations and from the Structs that validate their bodies."""
