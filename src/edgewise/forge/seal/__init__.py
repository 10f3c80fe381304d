"""From a run to a bundle: variants taken apart, golden inputs, documents, signatures."""
