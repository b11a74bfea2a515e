"""What filters, orders, selections and changes mean on a document, as on a MongoDB server."""
