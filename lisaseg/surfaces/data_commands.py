"""`lisaseg data ...`: what a folder of training or test data holds, how it looks, and the same in another format."""

from tyro.extras import SubcommandApp

from lisaseg.surfaces.commands import app

data = SubcommandApp()

app.command(data, name="data", help="Check, look at and convert training and test data.")
