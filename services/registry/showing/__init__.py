"""What the pages show: views of rows and of what lies in the object store, and the geometry of small pictures."""
