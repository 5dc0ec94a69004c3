"""What people read: tables, pages and charts."""
