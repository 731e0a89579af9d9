"""LoKr adapters, texts with several labels, their micro F1, and LaTeX tables for lightft."""
