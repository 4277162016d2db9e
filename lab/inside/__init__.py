"""What runs in the lab's own virtual environment, beside or inside OpenStack's services."""
