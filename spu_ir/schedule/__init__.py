"""
What a program does and what it would take on a card: counted work, and models of time and energy.

Nothing here imports the compiler: tables are made by `spu_ir.codegen` and read from packages.
"""
