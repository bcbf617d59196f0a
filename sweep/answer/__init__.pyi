from .answer import answer as answer
from .question import CONFIG_FILE as CONFIG_FILE
from .question import ask as ask
