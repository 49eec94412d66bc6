"""Where images and labels come from: folders, archives, tables, the Hub, digits."""
