"""Medical image classification, from pixels to endpoint."""
