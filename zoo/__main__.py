"""`python -m zoo`, the form that `accelerate launch -m zoo …` needs too."""

from zoo.cli.main import main

if __name__ == "__main__":
    main()
