"""The course as pages: lessons with the outputs of their committed runs, designs beside their equations, a glossary."""
